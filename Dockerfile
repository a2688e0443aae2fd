# CPU image: docker build -t imgcls .
#   docker run --rm --shm-size 2g -v "$PWD:/work" imgcls fit --data.dataset_classes.train photos
FROM python:3.13-slim AS build
RUN python -m venv /opt/imgcls
ENV PATH=/opt/imgcls/bin:$PATH
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
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
