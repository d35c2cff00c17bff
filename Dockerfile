# A static binary on an empty image, as a user without rights. Build with: docker build -t purser .
# It listens on the container's loopback until it is told otherwise, with a certificate, or in
# plain text where only this machine gets at it:
#   docker run -p 127.0.0.1:7411:7411 -p 127.0.0.1:7413:7413 -e PURSER_INSECURE=true \
#     -e PURSER_LISTEN=0.0.0.0:7411 -e PURSER_HTTP_LISTEN=0.0.0.0:7413 purser
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /purser ./cmd/purser \
    && mkdir -p /data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /purser /usr/local/bin/purser
COPY --from=build --chown=nonroot:nonroot /data /var/lib/purser
VOLUME /var/lib/purser
ENV PURSER_STORE=sqlite:/var/lib/purser/purser.db
# gRPC, /metrics with health, HTTP.
EXPOSE 7411 7412 7413
# It drains on SIGTERM; give it as long as --drain-for and some seconds more.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["purser", "health"]
ENTRYPOINT ["purser"]
CMD ["serve"]
