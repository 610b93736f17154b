# docker buildx bake -f deploy/docker/docker-bake.hcl [--push]: all images, each with an SBOM and its provenance attached.
variable "REGISTRY" { default = "vibeserve" }
variable "VERSION" { default = "0.1.0" }
variable "REVISION" { default = "unknown" }

group "default" { targets = ["coordinator", "agent-cpu", "agent-cuda", "agent-rocm"] }

target "image" {
  context    = "."
  dockerfile = "deploy/docker/Dockerfile"
  args       = { VERSION = VERSION, REVISION = REVISION }
  # Attestations are kept by a registry or an OCI layout, not by the engine's own store: --push, or --set *.output=type=oci,dest=….tar
  attest = ["type=provenance,mode=max", "type=sbom"]
}

target "coordinator" {
  inherits  = ["image"]
  target    = "coordinator"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/coordinator:${VERSION}"]
}

target "agent-cpu" {
  inherits  = ["image"]
  target    = "agent-cpu"
  platforms = ["linux/amd64", "linux/arm64"]
  tags      = ["${REGISTRY}/agent-cpu:${VERSION}"]
}

target "agent-cuda" {
  inherits  = ["image"]
  target    = "agent-cuda"
  platforms = ["linux/amd64"]
  tags      = ["${REGISTRY}/agent-cuda:${VERSION}"]
}

target "agent-rocm" {
  inherits  = ["image"]
  target    = "agent-rocm"
  platforms = ["linux/amd64"]
  tags      = ["${REGISTRY}/agent-rocm:${VERSION}"]
}
