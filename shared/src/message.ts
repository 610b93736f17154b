import { z } from "zod";

/** Schema of a message or a file: `v`, its `kind`, and its own members. Keys that it does not name are refused. */
export const message = <const Kind extends string, Shape extends z.ZodRawShape>(kind: Kind, shape: Shape) =>
  z.strictObject({ v: z.literal(1), kind: z.literal(kind), ...shape });
