import { suitable, type FleetFile, type FleetKind } from "./fleet-file.ts";

/** One campaign of a fleet's file, with the kind that it runs on. Times are ms from the fleet's start. */
export interface PlannedCampaign {
  id: string;
  group: string;
  on: FleetKind;
  experiments: number;
  weight: number;
  priority: number;
  devices: number;
  startMs: number;
  deadlineMs: number | null;
}

/** Each of the alike on the kind that has the fewest of them, for the devices that it has. */
export function campaignsOf(fleet: FleetFile): PlannedCampaign[] {
  const load = new Map<string, number>();
  return fleet.campaigns.flatMap((group) =>
    Array.from({ length: group.count }, (_, n) => {
      const per = (kind: FleetKind) => (load.get(kind.name) ?? 0) / kind.count;
      const [on] = suitable(fleet, group.on)
        .filter((kind) => kind.perAgent >= group.devices)
        .sort((a, b) => per(a) - per(b));
      if (!on) throw new Error(`no kind suits ${group.name}`);
      load.set(on.name, (load.get(on.name) ?? 0) + 1);
      const { weight, priority, devices, deadlineH, experiments } = group;
      const startMs = Math.round(3_600_000 * group.startH);
      const deadlineMs = deadlineH === undefined ? null : Math.round(3_600_000 * deadlineH);
      const id = group.count === 1 ? group.name : `${group.name}-${n + 1}`;
      return { id, group: group.name, on, experiments, weight, priority, devices, startMs, deadlineMs };
    }),
  );
}
