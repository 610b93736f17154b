import { JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";

/**
 * What became of a store at an expected sequence that failed. moved: the subject has gone on, by an earlier try or another writer. refused: for good. unknown: nobody
 * answered, a cluster is choosing a leader (503), or an earlier try is still on its way to a majority (10164): the next try finds out.
 */
export function storeVerdict(error: unknown): "moved" | "refused" | "unknown" {
  if (!(error instanceof JetStreamApiError) || error.status === 503) return "unknown";
  const { err_code: code } = error.apiError();
  if (code === JetStreamApiCodes.StreamWrongLastSequence) return "moved";
  return code === JetStreamApiCodes.StreamWrongLastSequenceUnknown ? "unknown" : "refused";
}
