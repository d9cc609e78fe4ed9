"""Pretraining of the embedded model: a build tool (`ospo shapes pretrain`), which no round of the pipeline runs.

`lessons` draws examples of everything the model learns, `batches` packs them into token tensors, `model` assembles the
tiny Janus and its tokenizer, `vq` trains its image tokenizer and `janus` all the rest, and `commands` runs both.
"""
