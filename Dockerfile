# The studio, and every other command:  docker build -t sdist .     For a GPU:  --build-arg TORCH=https://download.pytorch.org/whl/cu126
#   docker run -p 7860:7860 sdist
#   docker run -v "$PWD:/work" sdist run --input folder --output results
FROM python:3.12-slim
ARG TORCH=https://download.pytorch.org/whl/cpu
WORKDIR /opt/sdist
COPY . .
RUN pip install --no-cache-dir -c constraints.txt --index-url "$TORCH" torch \
 && pip install --no-cache-dir -c constraints.txt ".[app,lora]" \
 && mkdir -m 777 /work /models
ENV HF_HOME=/models
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["sdist"]
CMD ["app", "--host", "0.0.0.0"]
