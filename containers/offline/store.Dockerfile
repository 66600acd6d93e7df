# SecantusDB in the place of the image mongo: the same user (999), directory, port and variables.
ARG BASE_IMAGE
ARG BUILD_IMAGE
FROM ${BUILD_IMAGE} AS install
COPY wheels /wheels
COPY requirements.txt /
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/store && \
    /build/bin/pip --python /opt/store/bin/python install --quiet --no-cache-dir \
        --require-hashes -r /requirements.txt

FROM ${BASE_IMAGE}
RUN groupadd --system --gid 999 mongodb && \
    useradd --system --uid 999 --gid 999 --no-create-home --shell /usr/sbin/nologin mongodb && \
    mkdir -p /data/db /data/configdb && chown -R mongodb:mongodb /data
COPY --from=install /opt/store /opt/store
COPY store.py /opt/store/store.py
USER mongodb
EXPOSE 27017
VOLUME ["/data/db", "/data/configdb"]
ENTRYPOINT ["/opt/store/bin/python", "/opt/store/store.py"]
CMD ["mongod"]
