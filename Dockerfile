# BuildKit is needed, as every current Docker has it: docker build -t usercast .
# A release: docker build --build-arg VERSION=v1.2.3 -t usercast:v1.2.3 .

# The tag is the Go of go.mod. The compiler runs on the builder's own kind of
# processor and makes code for the target's: no emulation.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src
ARG VERSION=""
ARG TARGETOS TARGETARCH
# The source is lent to the step, not copied into a layer; modules and compiled
# packages stay in the builder for the next time.
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.release=$VERSION" -o /out/usercast ./cmd/usercast

# From scratch: the binary is static and runs nothing else, so that a distribution
# below it, however small, would only add what has to be kept up to date. What it
# does need from outside is whom to trust (rediss://).
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/usercast /usercast

# A number, so that Kubernetes' runAsNonRoot can tell that it is not root. Nothing
# is ever written: a read-only root file system and no capabilities are enough.
USER 65532:65532

# A published port cannot reach loopback inside a container. Change these in the
# environment rather than with flags: the health check reads it too.
ENV USERCAST_LISTEN=:8080 USERCAST_ADMIN_LISTEN=:8081
EXPOSE 8080 8081

# Healthy is /readyz: from the first subscription to Redis until SIGTERM.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["/usercast", "health"]
ENTRYPOINT ["/usercast"]
CMD ["serve"]
