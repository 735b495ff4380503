# The image of the action and of the probes. Where base images can be pulled it is
# built from a clean clone; elsewhere `make image` packs the program that was built
# here into the same last stage.
FROM golang:1.26.8-bookworm AS build
ARG KEYTURN_VERSION=
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make rootfs ROOTFS=/rootfs KEYTURN_VERSION=$KEYTURN_VERSION

FROM scratch
COPY --from=build /rootfs /
ENTRYPOINT ["/keyturn"]
