/** The same work for everyone who asks while it goes on. */
export function once<T>(going: Map<string, Promise<T>>, key: string, work: () => Promise<T>): Promise<T> {
  const known = going.get(key);
  if (known) return known;
  const started = work().finally(() => going.delete(key));
  going.set(key, started);
  return started;
}
