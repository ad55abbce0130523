# nhgd-pde on the CPU, in the versions that the tests ran with:
#
#   docker build -t nhgd-pde .
#   docker run --rm -v "$PWD:/work" nhgd-pde solve problems/poisson_control.yaml
#
# The problem file and the run folder are those of the current folder.
FROM python:3.11-slim

WORKDIR /opt/nhgd-pde
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY nhgd_pde nhgd_pde
# Build environments read the second variable from pip 25.3 on, the first before that. The second index has torch without
# CUDA; all packages come as wheels, so that no compiler is needed.
ENV PIP_CONSTRAINT=/opt/nhgd-pde/constraints.txt PIP_BUILD_CONSTRAINT=/opt/nhgd-pde/constraints.txt
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[plot,formats]'

# Run as an ordinary user: with `--user "$(id -u):$(id -g)"` results belong to you.
RUN useradd --create-home user
USER user
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["nhgd-pde"]
CMD ["--help"]
