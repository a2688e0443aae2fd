# CPU image: docker build -t imgcls --build-arg INDEX=URL .
#   docker run --rm --shm-size 2g -v "$PWD:/work" imgcls fit --data.dataset_classes.train photos
FROM python:3.13-slim AS build
RUN python -m venv /opt/imgcls
ENV PATH=/opt/imgcls/bin:$PATH
# INDEX: of PyTorch's CPU build, as pytorch.org/get-started shows it; without it, CUDA is installed, too
ARG INDEX=""
RUN pip install --no-cache-dir torch torchvision ${INDEX:+--index-url "$INDEX"}
COPY . /source
RUN pip install --no-cache-dir "/source[timm]"

FROM python:3.13-slim
COPY --from=build /opt/imgcls /opt/imgcls
RUN useradd --create-home --uid 1000 imgcls
ENV PATH=/opt/imgcls/bin:$PATH
USER imgcls
WORKDIR /work
ENTRYPOINT ["imgcls"]
CMD ["--help"]
