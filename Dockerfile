# docker build -t b2b_jax . && docker run --rm -v "$PWD:/photos" b2b_jax deblur photo.jpg --model runs/mine --output sharp
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY b2b_jax b2b_jax
COPY configs configs
# For a GPU: docker build --build-arg EXTRAS=[video,cuda]
ARG EXTRAS="[video]"
# The package itself is installed from this folder, of whatever version it is.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".${EXTRAS}" && useradd --create-home --uid 1000 photographer
USER 1000
WORKDIR /photos
ENTRYPOINT ["b2b-jax"]
CMD ["--help"]
