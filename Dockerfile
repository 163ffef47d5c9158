# A node in a container: `make image`. docs/operations.md says how to run it.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# 1: with the core compiled, which takes some minutes more.
ARG ZMESH_COMPILE=0
ENV PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
RUN if [ "$ZMESH_COMPILE" = 1 ]; then apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; fi
WORKDIR /src
COPY requirements/run.txt requirements/build.txt ./requirements/
RUN python -m venv --without-pip /opt/zmesh && \
    python -m pip --python /opt/zmesh/bin/python install --require-hashes -r requirements/run.txt && \
    python -m pip install --require-hashes -r requirements/build.txt
COPY . .
RUN python -m pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . && \
    python -m pip --python /opt/zmesh/bin/python install --no-index --no-deps /wheels/*.whl

FROM ${BASE}
# The base comes without the bytecode of its library, and the user cannot write any: every start and every health check
# would compile it anew, three times as long as it takes to do the work. Group 0 is the one of users whose id a platform
# makes up.
RUN python -m compileall -q -x 'site-packages|idlelib|lib2to3|ensurepip|pydoc|tkinter|turtle' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" && \
    install -d -m 0770 -o 10001 -g 0 /var/lib/zmesh
COPY --from=build /opt/zmesh /opt/zmesh
ENV PATH=/opt/zmesh/bin:$PATH MESH_PRIVATE_KEY=/var/lib/zmesh/mesh.key MESH_STATE_DIR=/var/lib/zmesh
WORKDIR /var/lib/zmesh
VOLUME /var/lib/zmesh
USER 10001:0
EXPOSE 9090
HEALTHCHECK --start-period=30s --timeout=5s CMD ["zmesh", "health"]
ENTRYPOINT ["zmesh"]
CMD ["run"]
