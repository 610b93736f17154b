import { permissionCases } from "../kit/permission-cases.ts";
import { startBroker } from "../kit/real-broker.ts";

permissionCases(startBroker);
