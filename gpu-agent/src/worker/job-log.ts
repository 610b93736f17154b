import type { ArtifactRef } from "@vibeserve/shared";
import { cleanText } from "../process/log-ring.ts";
import type { ArtifactStore } from "./job-context.ts";

/** Enough for what a handler says; a candidate's own output is bounded before it gets here. */
const MAX_BYTES = 1 << 20;

/** The job's own log: lines with the second of the job at which they were written, bounded, clean. */
export class JobLog {
  readonly #startedMs = performance.now();
  readonly #lines: string[] = [];
  #bytes = 0;
  #dropped = 0;

  write(line: string): void {
    const text = `${((performance.now() - this.#startedMs) / 1000).toFixed(3).padStart(9)}  ${cleanText(line)}`;
    if (this.#bytes + text.length > MAX_BYTES) {
      this.#dropped++;
      return;
    }
    this.#bytes += text.length + 1;
    this.#lines.push(text);
  }

  /** Null where there is nothing to store, or it can't be stored: a result is not lost for its log. */
  async store(artifacts: ArtifactStore, onFailure: (error: unknown) => void): Promise<ArtifactRef | null> {
    if (this.#lines.length === 0) return null;
    if (this.#dropped > 0) this.#lines.push(`${this.#dropped} lines more were left out`);
    try {
      return await artifacts.put(Buffer.from(`${this.#lines.join("\n")}\n`));
    } catch (error) {
      onFailure(error);
      return null;
    }
  }
}
