/** The candidate broke its contract: becomes a failed gate with this message, never an exception of the check. */
export class CandidateFault extends Error {
  override readonly name = "CandidateFault";
}

/** What a hostile server wrote, fit for a report: one line, no control characters, bounded. */
export function quote(text: string, limit = 200): string {
  const line = JSON.stringify(text.slice(0, limit).replace(/[^\P{C}\n]/gu, "\uFFFD"));
  return text.length > limit ? `${line}…` : line;
}
