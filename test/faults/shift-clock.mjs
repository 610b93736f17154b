/** `node --import <this>`: this process alone has a clock that is VIBESERVE_TEST_SHIFT_MS ahead. Timers and monotonic clocks are as they are. */
const shift = Number(process.env.VIBESERVE_TEST_SHIFT_MS);
if (!Number.isFinite(shift)) throw new Error("VIBESERVE_TEST_SHIFT_MS is no number");
const Real = Date;
globalThis.Date = class extends Real {
  constructor(...args) {
    if (args.length === 0) super(Real.now() + shift);
    else super(...args);
  }
  static now() {
    return Real.now() + shift;
  }
};
