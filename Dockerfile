# The broker in an image without a shell: the program, the C library, CA certificates, an
# unprivileged user. docs/operations.md, "In containers", says how to run it.
#
#   docker build -t fanlight .
#   docker run --rm -p 127.0.0.1:8080:8080 -e FANLIGHT_ACCESS_MODE=off fanlight demo

ARG RUST_VERSION=1.95
ARG DEBIAN=bookworm

# === The manifests alone, with empty programs in the place of the sources ===
# What comes out is the same for every change of the sources, and so is all that is built from it.
FROM rust:${RUST_VERSION}-${DEBIAN} AS manifests
WORKDIR /context
COPY . .
# The package names its programs and benches; cargo wants a file for each.
RUN mkdir /manifests \
    && find . '(' -name Cargo.toml -o -name Cargo.lock ')' -exec cp --parents '{}' /manifests ';' \
    && find src/main.rs src/lib.rs benches -maxdepth 2 -name '*.rs' -exec cp --parents '{}' /manifests ';' \
    && find /manifests -name '*.rs' -exec sh -c 'echo "fn main() { }" >"$1"' sh '{}' ';' \
    && : >/manifests/src/lib.rs

# === The program ===
FROM rust:${RUST_VERSION}-${DEBIAN} AS build
WORKDIR /build
COPY --from=manifests /manifests ./
# The dependencies, which take most of the time: built anew only when a manifest changes.
RUN cargo build --release --locked --bin fanlight
COPY . .
# Cargo goes by the times of files, and the copied ones can be older than the empty ones built.
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin fanlight \
    && strip target/release/fanlight \
    && target/release/fanlight --version \
    && install -D target/release/fanlight /image/usr/local/bin/fanlight \
    && install -D -m 644 -t /image/usr/share/doc/fanlight LICENSE-APACHE LICENSE-MIT \
    && install -d /image/etc/fanlight \
    && install -d -o 65532 -g 65532 -m 700 /image/var/lib/fanlight

# === What runs ===
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image /
LABEL org.opencontainers.image.title="Fanlight" \
      org.opencontainers.image.description="A self-hosted fan-out broker for Particle devices" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# All addresses of the container: what reaches it from outside is what is published. So it wants
# keys, or to be told that it is to be open (FANLIGHT_ACCESS_MODE=off): docs/access.md.
ENV FANLIGHT_LISTEN=0.0.0.0:8080 \
    FANLIGHT_STATE_DIR=/var/lib/fanlight
# fanlight.toml is read from here, if there is one.
WORKDIR /etc/fanlight
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Its own timeout (3 s) comes first, so that the reason is in `docker inspect`.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/fanlight", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/fanlight"]
CMD ["serve"]
