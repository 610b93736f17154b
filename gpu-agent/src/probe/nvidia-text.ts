import { cleanText } from "../process/log-ring.ts";
import { parseOutline, quantity, valueAt, type Outline } from "./outline.ts";

/** `nvidia-smi -q`: the driver, and one outline a GPU, in the order of the bus. */
export interface Query {
  readonly driver: string | null;
  readonly cuda: string | null;
  /** How many GPUs the driver has; null where it does not say. */
  readonly attached: number | null;
  readonly gpus: readonly (readonly Outline[])[];
}

export function parseQuery(text: string): Query {
  const outline = parseOutline(text);
  return {
    driver: valueAt(outline, "Driver Version"),
    cuda: valueAt(outline, "CUDA Version"),
    attached: quantity(valueAt(outline, "Attached GPUs"), ""),
    gpus: outline.filter((o) => /^GPU [0-9A-F]{4,8}:/i.test(o.key)).map((o) => o.children),
  };
}

/** A slice of a GPU, as `nvidia-smi -L` lists it; the profile is in no other output. */
export interface Slice {
  readonly gpuUuid: string;
  /** "1g.10gb", "1c.3g.20gb". */
  readonly profile: string;
  readonly index: number;
  readonly uuid: string;
}

export function parseList(text: string): Slice[] {
  const slices: Slice[] = [];
  let gpuUuid = "";
  for (const line of text.split("\n")) {
    gpuUuid = /^GPU \d+: .*\(UUID: (GPU-[0-9a-f-]+)\)/.exec(line)?.[1] ?? gpuUuid;
    const [, profile, index, uuid] = /^\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-\S+)\)/.exec(line) ?? [];
    if (profile !== undefined && uuid !== undefined) slices.push({ gpuUuid, profile, index: Number(index), uuid });
  }
  return slices;
}

/** `--format=csv` with its header: one record a line, by the query's field names without units. A value keeps its unit: "345 MHz". */
export function parseCsv(text: string): Record<string, string>[] {
  const [header = "", ...lines] = text.split("\n").filter((line) => line.trim() !== "");
  const names = header.split(",").map((name) => name.trim().replace(/ \[[^\]]*\]$/, ""));
  const rows = lines.map((line) => line.split(",").map((value) => value.trim()));
  // A line of another length is a message that the tool put between ("Unable to determine the device handle …").
  return rows.filter((row) => row.length === names.length).map((row) => Object.fromEntries(names.map((name, i) => [name, row[i] ?? ""])));
}

/** One GPU's row of `nvidia-smi topo -m`. */
export interface Links {
  readonly index: number;
  /** Other GPUs that NVLinks lead to, and how many of them: "NV18" is 18. */
  readonly peers: readonly { readonly index: number; readonly links: number }[];
  /** Processors near it, "0-47,96-143"; null where the tool does not say. */
  readonly cpus: string | null;
}

/** A long list is cut off at the column's width. */
const wholeList = (text: string): string | null => /^\d+(-\d+)?(,\d+(-\d+)?)*$/.exec(text)?.[0] ?? null;

/** It underlines its header for a terminal, into a pipe too. */
export function parseTopology(text: string): Links[] {
  const lines = cleanText(text)
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  const header = lines.find((words) => words[0] === "GPU0") ?? [];
  const columns = header.filter((word) => /^(GPU|NIC|mlx)[\w-]*\d/.test(word));
  return lines
    .filter((words) => words !== header && /^GPU\d+$/.test(words[0] ?? ""))
    .map(([name = "", ...cells]) => ({
      index: Number(name.slice(3)),
      peers: columns.flatMap((column, i) => {
        const links = Number(/^NV(\d+)$/.exec(cells[i] ?? "")?.[1] ?? 0);
        return links > 0 && /^GPU\d+$/.test(column) ? [{ index: Number(column.slice(3)), links }] : [];
      }),
      cpus: wholeList(cells.slice(columns.length).find((cell) => /^\d[\d,-]*$/.test(cell)) ?? ""),
    }));
}
