/** What a thing that was caught says. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
