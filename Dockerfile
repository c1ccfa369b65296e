# Build with BuildKit, which is the default in current versions of Docker: docker build -t usercast .
# Build a release: docker build --build-arg VERSION=v1.2.3 -t usercast:v1.2.3 .

# The tag is the Go version in go.mod. The compiler runs on the platform of the
# builder and cross-compiles for the target, so no emulation is needed.
FROM --platform=$BUILDPLATFORM golang:1.26.8-trixie AS build
WORKDIR /src
ARG VERSION=""
ARG TARGETOS TARGETARCH
# The source is mounted, not copied into a layer. The builder caches modules and
# compiled packages for the next build.
RUN --mount=type=bind,target=. \
    --mount=type=cache,target=/go/pkg/mod \
    --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.release=$VERSION" -o /out/usercast ./cmd/usercast

# The binary is static and runs no other programs. Any base image would only add
# files that need updates. The CA certificates are needed for rediss://.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/usercast /usercast

# A numeric user, so that Kubernetes can verify runAsNonRoot. The program writes no
# files: it runs with a read-only root file system and without capabilities.
USER 65532:65532

# A published port cannot reach a loopback address inside a container. Change these
# in the environment instead of with flags, because the health check reads them too.
ENV USERCAST_LISTEN=:8080 USERCAST_ADMIN_LISTEN=:8081
EXPOSE 8080 8081

# The health check requests /readyz, which succeeds from the first subscription to
# Redis until SIGTERM.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["/usercast", "health"]
ENTRYPOINT ["/usercast"]
CMD ["serve"]
