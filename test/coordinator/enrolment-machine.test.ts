import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { AgentPrincipal } from "../../coordinator/src/broker/principals.ts";
import { decided, judge, mint, NOBODY, reconciled, revoked, type Enrolments } from "../../coordinator/src/enrolment/enrolment.machine.ts";
import { simulatedDevice } from "../kit/fake-outcomes.ts";

const KEYS = ["K1", "K2", "K3"];
const IDS = ["a", "b"];
const info = (agentId: string, publicKey: string) => ({
  ...{
    v: 1 as const,
    kind: "agent" as const,
    agentId,
    publicKey,
    version: "0",
    pools: ["p"],
    devices: [simulatedDevice(agentId)],
    tools: [],
  },
  ...{ sandbox: "none" as const, state: "ready" as const, pid: 1, host: "h", startedAt: 1 },
});

const step = fc.oneof(
  fc.record({ kind: fc.constant("mint" as const), token: fc.nat(3), byLabels: fc.boolean() }),
  fc.record({ kind: fc.constant("ask" as const), token: fc.nat(4), id: fc.constantFrom(...IDS), key: fc.constantFrom(...KEYS) }),
  fc.record({ kind: fc.constant("account" as const), id: fc.constantFrom(...IDS), key: fc.constantFrom(...KEYS) }),
  fc.record({ kind: fc.constantFrom("approve" as const, "refuse" as const, "revoke" as const), id: fc.constantFrom(...IDS) }),
  fc.record({ kind: fc.constant("killed" as const) }),
);

test("over random histories a token lets in one key at the most, a revoked key never comes back, and an id belongs to one key", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let state: Enrolments = NOBODY;
      let enrolled: AgentPrincipal[] = [];
      const minted = new Set<number>();
      const heldBy = new Map<number, string>();
      const out = new Set<string>();
      const admit = (agent: AgentPrincipal) => (enrolled = [...enrolled.filter((a) => a.agentId !== agent.agentId), agent]);
      steps.forEach((s, now) => {
        switch (s.kind) {
          case "mint":
            if (minted.has(s.token)) break;
            minted.add(s.token);
            state = mint(
              state,
              { secret: `t${s.token}`, pool: null, labels: s.byLabels ? { "vibeserve.dev/device.kind": "cpu" } : {}, expiresAt: 30 },
              now,
            );
            break;
          case "ask": {
            const before = state;
            const { state: after, verdict } = judge(state, enrolled, info(s.id, s.key), { kind: "token", token: `t${s.token}` }, now);
            state = after;
            if (verdict.kind === "approve") {
              expect(out.has(s.key)).toBe(false);
              expect(enrolled.some((a) => a.agentId === s.id && a.publicKey !== s.key)).toBe(false);
              admit(verdict.agent);
            }
            if (after !== before) {
              expect(minted.has(s.token)).toBe(true);
              expect(heldBy.get(s.token) ?? s.key).toBe(s.key);
              heldBy.set(s.token, s.key);
            }
            break;
          }
          case "account": {
            const { state: after, verdict } = judge(state, enrolled, info(s.id, s.key), { kind: "account" }, now);
            state = after;
            if (verdict.kind === "approve") {
              expect(out.has(s.key)).toBe(false);
              admit(verdict.agent);
            }
            break;
          }
          case "approve": {
            const waiting = state.waiting.find((a) => a.agentId === s.id);
            if (!waiting) break;
            expect(out.has(waiting.publicKey)).toBe(false);
            expect(enrolled.some((a) => a.agentId === s.id)).toBe(false);
            admit({ agentId: s.id, publicKey: waiting.publicKey, pools: ["p"] });
            // Or killed between the two files, and started again.
            state = now % 2 === 0 ? decided(state, s.id, null) : reconciled(state, enrolled).state;
            break;
          }
          case "refuse":
            state = decided(state, s.id, { at: now + 1, reason: "no" });
            break;
          case "revoke": {
            const agent = enrolled.find((a) => a.agentId === s.id);
            if (!agent) break;
            state = revoked(state, agent, now + 1, "out");
            out.add(agent.publicKey);
            enrolled = enrolled.filter((a) => a !== agent);
            break;
          }
          case "killed":
            ({ state } = reconciled(state, enrolled));
            break;
        }
        expect(new Set(state.tokens.map((t) => t.hash)).size).toBe(state.tokens.length);
        expect(JSON.stringify(state)).not.toMatch(/"t[0-9]"/);
      });
    }),
    { numRuns: 10_000 },
  );
});

test("after a kill between two files a revocation that was kept holds, and who is in does not wait", () => {
  const agent = { agentId: "a", publicKey: "K1", pools: ["p"] };
  const waiting = { agentId: "b", publicKey: "K2", pools: ["p"], version: "0", devices: [], since: 1 };
  const state = { ...revoked(NOBODY, agent, 1, "out"), waiting: [waiting] };
  const both = [agent, { agentId: "b", publicKey: "K2", pools: ["p"] }];
  expect(reconciled(state, both)).toMatchObject({ out: [agent], state: { waiting: [] } });
});
