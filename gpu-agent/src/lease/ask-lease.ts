import type { NatsConnection } from "@nats-io/transport-node";
import { decode, encode, LeaseReply, LeaseRequest, subjects, type Job } from "@vibeserve/shared";

/** The coordinator answers from memory after one synced write: a few ms. Beyond this it is down or busy, and the job waits in the stream. */
const ANSWER_MS = 5_000;

/** "unreachable": nobody answered; the job is for later. */
export type LeaseAnswer = LeaseReply | { readonly kind: "unreachable"; readonly reason: string };

/** Asks to start this attempt. Never rejects for what the other side or the network does. */
export async function askLease(nc: NatsConnection, agentId: string, deviceId: string, job: Job): Promise<LeaseAnswer> {
  const subject = subjects.lease(agentId);
  const request: LeaseRequest = { v: 1, kind: "lease.request", agentId, deviceId, jobId: job.id, attempt: job.attempt };
  try {
    const reply = await nc.request(subject, encode(LeaseRequest, request, subject), { timeout: ANSWER_MS });
    return decode(LeaseReply, reply.data, subject);
  } catch (error) {
    return { kind: "unreachable", reason: error instanceof Error ? error.message : String(error) };
  }
}
