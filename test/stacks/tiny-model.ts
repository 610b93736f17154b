export {
  byteCharacters,
  tiny,
  tinyKeys,
  tinyModel,
  tinyTensors,
  tinyTokens,
  tinyWeights,
  type Format,
  type Matrix,
} from "../../coordinator/src/tiny-model/tiny-model.ts";
