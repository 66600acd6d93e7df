# The base with pip, and the wheels that pip may install: what the Dockerfile of the units builds
# with where there is no network.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY debs /tmp/debs
RUN dpkg --install /tmp/debs/*.deb >/dev/null && rm -rf /tmp/debs
COPY wheels /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
