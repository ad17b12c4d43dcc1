/* Classifies a picture with a LiteRT file of kzoo, through LiteRT's C API.

       classify model.tflite picture.ppm labels.txt

   picture.ppm is a binary PPM (P6) of the model's size: resizing is up to you, as `how` in the card tells.
   labels.txt lies in the model: unzip -p model.tflite labels.txt > labels.txt

   The file takes float32, uint8 or int8, whichever it was exported with: pixels become what its input takes by the
   scale and the zero point of the tensor. Prints a line for each class: its probability, and its name. */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "litert/c/litert_tensor_buffer_requirements.h"

static void fail(const char* what) {
  fprintf(stderr, "classify: %s\n", what);
  exit(1);
}

static void check(LiteRtStatus status, const char* what) {
  if (status != kLiteRtStatusOk) fail(what);
}

/* Shape and type of a tensor, its buffer, and what its integers stand for: scale * (integer - zero_point). */
typedef struct {
  LiteRtRankedTensorType type;
  LiteRtTensorBuffer buffer;
  size_t count;
  float scale;
  int64_t zero_point;
} Tensor;

static Tensor open_tensor(LiteRtEnvironment environment, LiteRtTensor tensor, LiteRtTensorBufferRequirements needs) {
  Tensor told = {.count = 1, .scale = 1, .zero_point = 0};
  check(LiteRtGetRankedTensorType(tensor, &told.type), "the tensor has no shape");
  for (unsigned axis = 0; axis < told.type.layout.rank; ++axis) told.count *= (size_t)told.type.layout.dimensions[axis];
  LiteRtQuantizationTypeId quantized;
  check(LiteRtGetQuantizationTypeId(tensor, &quantized), "the tensor tells no quantization");
  if (quantized == kLiteRtQuantizationPerTensor) {
    LiteRtQuantizationPerTensor step;
    check(LiteRtGetPerTensorQuantization(tensor, &step), "the tensor tells no scale");
    told.scale = step.scale;
    told.zero_point = step.zero_point;
  }
  check(LiteRtCreateManagedTensorBufferFromRequirements(environment, &told.type, needs, &told.buffer), "no memory");
  return told;
}

static unsigned char* read_ppm(const char* path, int height, int width) {
  FILE* file = fopen(path, "rb");
  int found_width = 0, found_height = 0, most = 0;
  if (!file || fscanf(file, "P6 %d %d %d", &found_width, &found_height, &most) != 3) fail("no binary PPM");
  if (found_width != width || found_height != height || most != 255) {
    fprintf(stderr, "classify: the picture is %d x %d, and the model takes %d x %d\n", found_height, found_width, height,
            width);
    exit(1);
  }
  fgetc(file);
  size_t count = (size_t)height * width * 3;
  unsigned char* pixels = malloc(count);
  if (!pixels || fread(pixels, 1, count, file) != count) fail("the picture ends too early");
  fclose(file);
  return pixels;
}

static void write_pixels(const Tensor* tensor, const unsigned char* pixels) {
  void* memory;
  check(LiteRtLockTensorBuffer(tensor->buffer, &memory, kLiteRtTensorBufferLockModeWrite), "cannot write the input");
  for (size_t i = 0; i < tensor->count; ++i) {
    float integer = nearbyintf(pixels[i] / tensor->scale) + (float)tensor->zero_point;
    switch (tensor->type.element_type) {
      case kLiteRtElementTypeFloat32: ((float*)memory)[i] = pixels[i]; break;
      case kLiteRtElementTypeUInt8: ((uint8_t*)memory)[i] = (uint8_t)fminf(fmaxf(integer, 0), 255); break;
      case kLiteRtElementTypeInt8: ((int8_t*)memory)[i] = (int8_t)fminf(fmaxf(integer, -128), 127); break;
      default: fail("the input is neither float32 nor 8 bits");
    }
  }
  check(LiteRtUnlockTensorBuffer(tensor->buffer), "cannot write the input");
}

static void print_scores(const Tensor* tensor, const char* labels) {
  FILE* file = fopen(labels, "r");
  if (!file) fail("no labels");
  char name[4096];
  void* memory;
  check(LiteRtLockTensorBuffer(tensor->buffer, &memory, kLiteRtTensorBufferLockModeRead), "cannot read the output");
  for (size_t i = 0; i < tensor->count; ++i) {
    float score = 0;
    switch (tensor->type.element_type) {
      case kLiteRtElementTypeFloat32: score = ((float*)memory)[i]; break;
      case kLiteRtElementTypeUInt8: score = tensor->scale * (((uint8_t*)memory)[i] - (float)tensor->zero_point); break;
      case kLiteRtElementTypeInt8: score = tensor->scale * (((int8_t*)memory)[i] - (float)tensor->zero_point); break;
      default: fail("the output is neither float32 nor 8 bits");
    }
    if (!fgets(name, sizeof name, file)) fail("too few labels");
    name[strcspn(name, "\n")] = 0;
    printf("%.6f %s\n", score, name);
  }
  check(LiteRtUnlockTensorBuffer(tensor->buffer), "cannot read the output");
  fclose(file);
}

int main(int argc, char** argv) {
  if (argc != 4) fail("usage: classify model.tflite picture.ppm labels.txt");
  LiteRtEnvironment environment;
  LiteRtModel model;
  LiteRtOptions options;
  LiteRtCompiledModel compiled;
  LiteRtSignature signature;
  LiteRtTensor input, output;
  LiteRtTensorBufferRequirements needs;
  check(LiteRtCreateEnvironment(0, NULL, &environment), "no environment");
  check(LiteRtCreateModelFromFile(environment, argv[1], &model), "the model cannot be read");
  check(LiteRtCreateOptions(&options), "no options");
  check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu), "no processor");
  check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "the model cannot be compiled");

  check(LiteRtGetModelSignature(model, 0, &signature), "the model has no signature");
  check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &input), "the model has no input");
  check(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &output), "the model has no output");
  check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &needs), "the input has no size");
  Tensor given = open_tensor(environment, input, needs);
  check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &needs), "the output has no size");
  Tensor wanted = open_tensor(environment, output, needs);
  const int32_t* shape = given.type.layout.dimensions;
  if (given.type.layout.rank != 4 || shape[0] != 1 || shape[3] != 3) fail("the model does not take one RGB image");

  unsigned char* pixels = read_ppm(argv[2], shape[1], shape[2]);
  write_pixels(&given, pixels);
  check(LiteRtRunCompiledModel(compiled, 0, 1, &given.buffer, 1, &wanted.buffer), "the model cannot be run");
  print_scores(&wanted, argv[3]);

  free(pixels);
  LiteRtDestroyTensorBuffer(given.buffer);
  LiteRtDestroyTensorBuffer(wanted.buffer);
  LiteRtDestroyCompiledModel(compiled);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  LiteRtDestroyEnvironment(environment);
  return 0;
}
