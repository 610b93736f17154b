import type { ControlPlane } from "../../kit/control-plane.ts";

/** Nodes as GPU Feature Discovery, AMD's operator and NFD label them, with what device plugins would offer. kwok calls them ready. */
export const NODES: Record<string, { labels: Record<string, string>; devices?: Record<string, string>; taint?: string }> = {
  "h100-a": {
    labels: {
      "nvidia.com/gpu.present": "true",
      "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
      "nvidia.com/gpu.count": "8",
      "nvidia.com/gpu.family": "hopper",
    },
    ...{ devices: { "nvidia.com/gpu": "8" }, taint: "nvidia.com/gpu" },
  },
  "h100-half": {
    labels: {
      "nvidia.com/gpu.present": "true",
      "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
      "nvidia.com/gpu.count": "4",
      "nvidia.com/gpu.family": "hopper",
    },
    ...{ devices: { "nvidia.com/gpu": "4" }, taint: "nvidia.com/gpu" },
  },
  "h100-mig": {
    labels: {
      ...{
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.count": "0",
        "nvidia.com/gpu.family": "hopper",
      },
      ...{ "nvidia.com/mig.strategy": "mixed", "nvidia.com/mig-1g.10gb.count": "56" },
    },
    ...{ devices: { "nvidia.com/mig-1g.10gb": "56" }, taint: "nvidia.com/gpu" },
  },
  "l4-a": {
    labels: {
      "nvidia.com/gpu.present": "true",
      "nvidia.com/gpu.product": "NVIDIA-L4",
      "nvidia.com/gpu.count": "1",
      "nvidia.com/gpu.family": "ada-lovelace",
    },
    ...{ devices: { "nvidia.com/gpu": "1" }, taint: "nvidia.com/gpu" },
  },
  // Its devices are in a ResourceSlice.
  "b200-a": {
    labels: { "nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "NVIDIA-B200" },
    taint: "nvidia.com/gpu",
  },
  "mi300x-a": {
    labels: { "feature.node.kubernetes.io/amd-gpu": "true", "amd.com/gpu.product-name": "AMD_Instinct_MI300X" },
    devices: { "amd.com/gpu": "8" },
    taint: "amd.com/gpu",
  },
  "cpu-a": { labels: { "vibeserve.dev/agent": "cpu" } },
  "worker-a": { labels: {} },
  "worker-b": { labels: {} },
  "worker-c": { labels: {} },
  "control-a": { labels: { "node-role.kubernetes.io/control-plane": "" }, taint: "node-role.kubernetes.io/control-plane" },
};

export async function makeNodes(plane: ControlPlane): Promise<void> {
  for (const [name, { labels, devices = {}, taint }] of Object.entries(NODES)) {
    const room = { cpu: "64", memory: "512Gi", pods: "110", "ephemeral-storage": "1Ti", ...devices };
    await plane.create({
      ...{ apiVersion: "v1", kind: "Node" },
      metadata: { name, labels: { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", ...labels } },
      spec: taint === undefined ? {} : { taints: [{ key: taint, effect: "NoSchedule" }] },
      status: { capacity: room, allocatable: room },
    });
  }
}

/** What NVIDIA's DRA driver would publish for one node: a class of devices, and eight of them. */
export async function makeDevices(plane: ControlPlane, nodeName: string): Promise<void> {
  await plane.create({
    ...{ apiVersion: "resource.k8s.io/v1", kind: "DeviceClass", metadata: { name: "gpu.nvidia.com" } },
    spec: { selectors: [{ cel: { expression: "device.driver == 'gpu.nvidia.com'" } }] },
  });
  await plane.create({
    ...{ apiVersion: "resource.k8s.io/v1", kind: "ResourceSlice", metadata: { name: `${nodeName}-gpus` } },
    spec: {
      ...{ driver: "gpu.nvidia.com", nodeName, pool: { name: nodeName, generation: 1, resourceSliceCount: 1 } },
      devices: Array.from({ length: 8 }, (_, i) => ({ name: `gpu-${i}` })),
    },
  });
}

/** Volumes that no storage is behind, bound at once. */
export async function makeVolumes(plane: ControlPlane, count: number): Promise<void> {
  await plane.create({
    ...{ apiVersion: "storage.k8s.io/v1", kind: "StorageClass", provisioner: "kubernetes.io/no-provisioner" },
    metadata: { name: "test", annotations: { "storageclass.kubernetes.io/is-default-class": "true" } },
  });
  for (let i = 0; i < count; i++)
    await plane.create({
      ...{ apiVersion: "v1", kind: "PersistentVolume", metadata: { name: `volume-${i}` } },
      spec: {
        accessModes: ["ReadWriteOnce"],
        capacity: { storage: "200Gi" },
        storageClassName: "test",
        hostPath: { path: `/nowhere/${i}` },
      },
    });
}
