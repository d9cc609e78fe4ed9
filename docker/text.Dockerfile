# Text worker: vLLM's OpenAI-compatible server over an exported text backbone, mounted at /models/text.
# docker build -f docker/text.Dockerfile -t ospo-text:0.1.0 .
FROM vllm/vllm-openai:v0.32.0

RUN useradd --create-home --uid 10001 ospo
USER 10001
WORKDIR /home/ospo
ENV HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
EXPOSE 8000
ENTRYPOINT ["vllm", "serve", "/models/text", "--served-model-name", "text", "--enable-prefix-caching", \
    "--structured-outputs-config.backend", "guidance"]
