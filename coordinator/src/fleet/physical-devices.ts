import { physicalId, type AgentInfo } from "@vibeserve/shared";

/**
 * Which agent has a physical device where several register it: agents with other data folders, users or containers on one machine, each with an id of its own for the
 * same GPU. The first has it as long as it is there and says so; nobody else is given work on it, nor counts as a second device.
 */
export class PhysicalDevices {
  readonly #holders = new Map<string, string>();
  readonly #twice = new Map<string, string>();

  /** The agent's entry with the devices that no other has; those are its from now on. */
  take(said: AgentInfo): AgentInfo {
    const { agentId, machine } = said;
    const others: string[] = [];
    const devices = said.devices.filter((device) => {
      const physical = physicalId(device, machine);
      if (physical === null) return true;
      const holder = this.#holders.get(physical) ?? agentId;
      this.#holders.set(physical, holder);
      if (holder !== agentId) others.push(`${device.id} is a device of agent ${holder} too, which gets its work; stop one of the two`);
      return holder === agentId;
    });
    if (others.length === 0) {
      this.#twice.delete(agentId);
      return said;
    }
    this.#twice.set(agentId, others.join("; "));
    return { ...said, devices };
  }

  letGo({ agentId, devices, machine }: AgentInfo): void {
    this.#twice.delete(agentId);
    for (const device of devices) {
      const physical = physicalId(device, machine);
      if (physical !== null && this.#holders.get(physical) === agentId) this.#holders.delete(physical);
    }
  }

  /** Why this agent is not given work for some of its devices; null: it is, for all. */
  twice(agentId: string): string | null {
    return this.#twice.get(agentId) ?? null;
  }

  /** Agents that would have more if others let go. */
  get waiting(): string[] {
    return [...this.#twice.keys()];
  }
}
