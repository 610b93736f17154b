import type { ModelShape } from "@vibeserve/shared";
import { bfloat16, type Draws } from "./draws.ts";

/** A prime that divides no vocabulary's size: neighbours by slot are far apart by id, so that bytes and control tokens are as rare in answers as others. */
const STRIDE = 48_271;

/**
 * Fills rows of an embedding. Tokens have slots. As many slots in a row as there are channels beside the constants share one draw, turned by a channel from each
 * to the next, so that one signed permutation of channels leads from every token to its successor. The first channels are the same in all: `constants`, in
 * deviations. Throws RangeError for a vocabulary that is a multiple of STRIDE.
 */
export function embeddingRows(
  s: ModelShape,
  draws: Draws,
  deviation: number,
  constants: readonly number[],
): (row: Uint16Array, id: number) => void {
  const turn = s.hidden - constants.length;
  const places = Uint32Array.from({ length: Math.ceil(s.vocab / turn) }, draws.stream(-4));
  const slots = new Uint32Array(s.vocab);
  if (s.vocab % STRIDE === 0) throw new RangeError(`a vocabulary of ${s.vocab} tokens is a multiple of ${STRIDE}`);
  for (let slot = 0, id = 0; slot < s.vocab; ++slot, id = (id + STRIDE) % s.vocab) slots[id] = slot;
  const base = new Uint16Array(turn);
  return (row, id) => {
    const by = slots[id]! % turn;
    draws.fill(base, deviation, places[(slots[id]! - by) / turn]!);
    constants.forEach((c, i) => (row[i] = bfloat16(c * deviation)));
    row.set(base.subarray(turn - by), constants.length);
    row.set(base.subarray(0, turn - by), constants.length + by);
  };
}
