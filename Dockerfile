# One image for each service, by the same steps: SERVICE (api, worker or mailer) names the lock file
# that is installed. The command of the same name runs it.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG SERVICE
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/consulta
COPY requirements/${SERVICE}.txt requirements/embedded.txt ./
RUN /opt/consulta/bin/pip install --require-hashes --requirement "${SERVICE}.txt"
# What builds the project itself is locked too, but does not go into the image.
RUN sed -n '/^setuptools==/,/# via/p' embedded.txt > setuptools.txt \
    && pip install --require-hashes --requirement setuptools.txt
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY api api
COPY rag_worker rag_worker
COPY mailer mailer
COPY consulta consulta
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/consulta/bin/pip install --no-deps wheels/*.whl

FROM python:${PYTHON}
ARG SERVICE
# Tesseract reads scanned pages; Debian's versions are those of the base image.
# hadolint ignore=DL3008
RUN if [ "${SERVICE}" = worker ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends tesseract-ocr tesseract-ocr-spa \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# The documents and passwords.json must be readable by this user.
ARG UID=1000
RUN useradd --uid "${UID}" --no-create-home --home-dir /tmp --shell /usr/sbin/nologin consulta \
    && install --directory --owner consulta /var/lib/consulta
COPY --from=build /opt/consulta /opt/consulta
ENV PATH=/opt/consulta/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER ${UID}
WORKDIR /var/lib/consulta
ENTRYPOINT ["python", "-m", "consulta"]
