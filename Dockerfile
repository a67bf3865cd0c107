# Every image of the platform. `cargo e2e images build` builds all of them, with docker or with buildah; by hand, for example:
#   docker build --target postgres .
#   cargo build --release --bins && docker build --target operator --build-arg BINARIES=target/release .
# Where no registry can be reached, `images build` first makes debian:trixie-slim itself.

# --- PostgreSQL 17, pgvector, Patroni -----------------------------------------------------------------------------------------
FROM debian:trixie-slim AS postgres

# The ids are part of the contract with the operator (volumes are owned by them), so they are not left to the packages.
# Just-in-time compilation is off in this platform: its LLVM would be half of the image. Perl serves only Debian's own wrappers
# around the server, which Patroni does not use.
RUN set -eu; \
    groupadd --system --gid 103 postgres; \
    useradd --system --uid 101 --gid 103 --home-dir /var/lib/postgresql --shell /usr/sbin/nologin postgres; \
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    mkdir -p /etc/postgresql-common; \
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates patroni postgresql-17 postgresql-17-pgvector tzdata; \
    dpkg --purge --force-depends $(dpkg-query --show --showformat '${Package}\n' \
        'libllvm*' 'libz3-*' perl 'perl-modules-*' 'libperl5*' 'lib*-perl' locales libc-l10n); \
    find /usr/bin -lname '*pg_wrapper' -delete; \
    rm -rf /usr/lib/postgresql/17/lib/bitcode /usr/lib/postgresql/17/lib/llvmjit* \
        /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/i18n /usr/share/perl* \
        /usr/share/postgresql/17/man /usr/lib/llvm-* \
        /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/postgresql /etc/patroni; \
    install -d -o postgres -g postgres -m 700 /var/lib/postgresql /var/lib/postgresql/data; \
    install -d -o postgres -g postgres -m 755 /run/postgresql; \
    install -d /etc/patroni
COPY --chmod=755 images/postgres/tanka-post-bootstrap /usr/local/bin/
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PGDATA=/var/lib/postgresql/data/pgdata \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 101:103
WORKDIR /var/lib/postgresql
EXPOSE 5432 8008
ENTRYPOINT ["patroni", "/etc/patroni/patroni.yaml"]

# --- Redis 8 with Sentinel ----------------------------------------------------------------------------------------------------
FROM debian:trixie-slim AS redis

RUN set -eu; \
    groupadd --system --gid 999 redis; \
    useradd --system --uid 999 --gid 999 --home-dir /data --shell /usr/sbin/nologin redis; \
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends redis-sentinel redis-server; \
    rm -rf /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale \
        /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/redis /etc/redis; \
    install -d -o redis -g redis -m 700 /data
COPY --chmod=755 images/redis/tanka-redis-server images/redis/tanka-redis-sentinel images/redis/tanka-redis-handover /usr/local/bin/
COPY --chmod=644 images/redis/members.sh /usr/local/lib/tanka/
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8
USER 999:999
WORKDIR /data
EXPOSE 6379 26379
# The Sentinel container of the same pod runs `tanka-redis-sentinel`.
ENTRYPOINT ["tanka-redis-server"]

# --- What our own binaries need: libraries of C, certificates, a user ---------------------------------------------------------
FROM debian:trixie-slim AS runtime

RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates; \
    rm -rf /var/lib/apt/lists/*; \
    mkdir -p /runtime/etc/ssl/certs /runtime/usr/local/bin; \
    install -d -m 1777 /runtime/tmp; \
    for loader in /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.*; do \
        if [ -e "$loader" ]; then cp --dereference --parents "$loader" /runtime; fi; \
    done; \
    for library in libc.so.6 libm.so.6 libgcc_s.so.1; do \
        cp --dereference --parents "$(ldconfig -p | awk -v name="$library" '$1 == name {print $NF; exit}')" /runtime; \
    done; \
    cp /etc/ssl/certs/ca-certificates.crt /runtime/etc/ssl/certs/; \
    echo 'tanka:x:65532:65532::/:/nonexistent' > /runtime/etc/passwd; \
    echo 'tanka:x:65532:' > /runtime/etc/group; \
    echo 'hosts: files dns' > /runtime/etc/nsswitch.conf

# --- The operator -------------------------------------------------------------------------------------------------------------
FROM scratch AS operator

# The binaries come from cargo on the host; docs/decisions/0004-images-from-host-binaries.md says why.
ARG BINARIES=bin
COPY --from=runtime /runtime/ /
COPY ${BINARIES}/tanka-operator /usr/local/bin/
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["tanka-operator"]

# --- The API server -----------------------------------------------------------------------------------------------------------
FROM scratch AS api-server

ARG BINARIES=bin
COPY --from=runtime /runtime/ /
COPY ${BINARIES}/tanka-api /usr/local/bin/
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8000 9000
ENTRYPOINT ["tanka-api"]
