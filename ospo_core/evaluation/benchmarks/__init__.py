"""Public benchmarks: their protocols, prompts, folder layouts and scores; import the modules, not the package.

Torch is imported by `evaluators` alone. Facts are from the benchmarks' own repositories; no code or text is.
"""
