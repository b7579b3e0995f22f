# The official image of PostgreSQL with pg_clerk, preloaded:
#
#   docker build -t postgres-clerk .
#   docker run -e POSTGRES_PASSWORD=... -p 5432:5432 postgres-clerk
#   docker build -t clerk-mock --target mock .     the mock Clerk server, for compose.yaml

ARG PG_MAJOR=15

FROM postgres:${PG_MAJOR}-bookworm AS build
ARG PG_MAJOR
RUN apt-get update && apt-get install -y --no-install-recommends \
        gcc libc6-dev make pkg-config libcurl4-openssl-dev libjson-c-dev \
        libglib2.0-dev libmicrohttpd-dev postgresql-server-dev-${PG_MAJOR}
COPY . /src
WORKDIR /src
RUN make clean && make && make DESTDIR=/out install && make -C test/mock

FROM debian:bookworm-slim AS mock
RUN apt-get update && apt-get install -y --no-install-recommends libglib2.0-0 libmicrohttpd12 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/test/mock_clerk /usr/local/bin/
USER nobody
CMD ["mock_clerk", "--port", "8080", "--max-seconds", "86400"]

FROM postgres:${PG_MAJOR}-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libcurl4 libjson-c5 ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/ /
CMD ["postgres", "-c", "shared_preload_libraries=pg_clerk"]
