# One image for every unit, and for the command line. Three stages, so that the image has what runs
# and nothing that builds:
#
#     pinned    which of requirements.txt a unit needs
#     install   a virtual environment with those and with the distributions
#     (last)    the base image and that environment
#
# Nothing in it is for one architecture: all that is compiled comes as wheels for x86-64 and arm64.
# It needs no BuildKit.

ARG BASE_IMAGE=python:3.11-slim-bookworm
# What builds: the same Python, and pip. An image that brings wheels with it (tools/offline-images)
# builds without a network.
ARG BUILD_IMAGE=${BASE_IMAGE}


FROM ${BUILD_IMAGE} AS pinned
WORKDIR /source
COPY . .
RUN python3 tools/pinned --runtime >/runtime.txt && python3 tools/pinned flit_core >/build.txt


FROM ${BUILD_IMAGE} AS install
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/patchbay
# Copied from the other stage, they are the same until a dependency changes: so is this layer.
COPY --from=pinned /runtime.txt /build.txt /
RUN /build/bin/pip install --quiet --require-hashes -r /build.txt && \
    /build/bin/pip --python /opt/patchbay/bin/python install --quiet --require-hashes -r /runtime.txt
# On a Raspberry Pi whose pins are used: GPIO=rpi-lgpio (compose.gpio.yaml). It is in no lock file.
ARG GPIO=
RUN if [ -n "${GPIO}" ]; then \
        /build/bin/pip --python /opt/patchbay/bin/python install --quiet "${GPIO}"; \
    fi
COPY --from=pinned /source /source
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist \
        /source/shared /source/svc-* && \
    /build/bin/pip --python /opt/patchbay/bin/python install --quiet --no-deps --no-index /dist/*.whl


FROM ${BASE_IMAGE}
# Base images come without the compiled standard library, and on a root file system that cannot be
# written every start, and every question for health, would compile what it imports.
RUN python3 -m compileall -q -x '/(test|tests|idlelib|lib2to3|turtledemo|(site|dist)-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# The directories of a unit's state. Each unit is a user of its own and has a volume of its own; a
# new volume takes its rights from here.
RUN if python3 -m pip --version >/dev/null 2>&1; then \
        python3 -m pip uninstall --quiet --yes --root-user-action=ignore setuptools wheel pip; \
    fi && \
    mkdir -p /var/lib/patchbay/units /run/patchbay && \
    chmod 1777 /var/lib/patchbay /var/lib/patchbay/units /run/patchbay
COPY --from=install /opt/patchbay /opt/patchbay
ENV PATH=/opt/patchbay/bin:$PATH \
    PATCHBAY_RUNTIME__STATE_DIR=/var/lib/patchbay \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/patchbay
USER 10000:10000
ENTRYPOINT ["patchbay"]
CMD ["--help"]
