import { JetStreamApiCodes, JetStreamApiError, type JetStreamManager, type StoredMsg } from "@nats-io/jetstream";

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

/**
 * What a subject ends with, to see whether a store whose answer was lost or that found it moved was made after all; null: nothing; "unknown": nobody can say now. Asked of
 * the stream's leader: a direct get may be answered by a server that lags behind.
 */
export async function lastStored(
  { streams }: { streams: Pick<JetStreamManager["streams"], "getMessage"> },
  stream: string,
  subject: string,
): Promise<StoredMsg | null | "unknown"> {
  try {
    return await streams.getMessage(stream, { last_by_subj: subject });
  } catch (error) {
    if (storeVerdict(error) === "refused") throw error;
    return "unknown";
  }
}
