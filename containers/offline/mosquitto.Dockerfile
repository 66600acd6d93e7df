# Debian's Mosquitto, laid out as in the image eclipse-mosquitto: its user has the uid 1883, its
# configuration and files are below /mosquitto.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN groupadd --system --gid 1883 mosquitto && \
    useradd --system --uid 1883 --gid 1883 --no-create-home --shell /usr/sbin/nologin mosquitto && \
    mkdir -p /mosquitto/config /mosquitto/data /mosquitto/log && \
    chown -R mosquitto:mosquitto /mosquitto
COPY debs /tmp/debs
RUN dpkg --install /tmp/debs/*.deb >/dev/null && rm -rf /tmp/debs && \
    ln -s /usr/sbin/mosquitto /usr/local/sbin/mosquitto
USER mosquitto
EXPOSE 1883
VOLUME ["/mosquitto/data", "/mosquitto/log"]
CMD ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
