import { z } from "zod";

/** A NATS subject token: no dots, spaces or wildcards, so an id can stand in a subject. */
export const Id = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "must be 1–64 letters, digits, '_' or '-'");
/** Short enough that the ids made from it, of its devices and its builder, are ids. */
export const AgentId = z.string().regex(/^[A-Za-z0-9_-]{1,48}$/, "must be 1–48 letters, digits, '_' or '-'");
export const Digest = z.string().regex(/^[0-9a-f]{64}$/, "must be a sha256 in hex");
/** Git's tree hash (sha1 or sha256): the identity of a candidate. */
export const TreeHash = z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/);
export const ArtifactRef = z.strictObject({ digest: Digest, bytes: z.int().min(0) });
export type ArtifactRef = z.infer<typeof ArtifactRef>;
/** A champion: the experiment that was crowned, in the campaign that crowned it. People write it "<campaign>.<experiment>", or the campaign alone for its last. */
export const ChampionRef = z.strictObject({ campaign: Id, experimentId: Id });
export type ChampionRef = z.infer<typeof ChampionRef>;
export const nameOf = ({ campaign, experimentId }: ChampionRef): string => `${campaign}.${experimentId}`;
/** Milliseconds since the Unix epoch. */
export const Instant = z.number().int().positive();
