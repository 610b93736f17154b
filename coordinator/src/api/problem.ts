import type { ApiError } from "@vibeserve/shared";

/** An answer that is no success: thrown by verbs, sent as ApiError. */
export class ApiProblem extends Error {
  readonly code: ApiError["code"];
  constructor(code: ApiError["code"], message: string) {
    super(message);
    this.name = "ApiProblem";
    this.code = code;
  }
}
