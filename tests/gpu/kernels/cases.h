/* Tests of the kernels, a file for each file of kernels/. */
#ifndef PIPETRAIN_TESTS_GPU_CASES_H
#define PIPETRAIN_TESTS_GPU_CASES_H

void flat_has_the_bits_of_cpus(void **state);
void flat_sgd_has_the_bits_of_cpus(void **state);
void flat_adam_has_the_bits_of_cpus(void **state);
void flat_sum_of_squares(void **state);
void flat_refuses_momentum_without_velocity(void **state);

void late_mean_squares_has_the_bits_of_cpus(void **state);
void late_gap_has_the_bits_of_cpus(void **state);
void late_look_back_has_the_bits_of_cpus(void **state);

void move_transposes(void **state);
void move_converts(void **state);
void move_rounds_to_bf16(void **state);
void move_copies_channels(void **state);

void elementwise_relu(void **state);
void elementwise_gelu(void **state);
void elementwise_sums(void **state);
void elementwise_philox_is_the_host_s(void **state);
void elementwise_dropout_has_the_mask_of_cpus(void **state);

void pool_max(void **state);
void pool_max_of_nans(void **state);
void pool_avg(void **state);
void pool_refuses_windows(void **state);
void pool_global(void **state);

void norm_bias(void **state);
void norm_train(void **state);
void norm_far_from_zero(void **state);
void norm_eval(void **state);
void norm_fused_is_the_three_ops(void **state);
void norm_back(void **state);

void loss_cross_entropy(void **state);
void loss_mean_square(void **state);
void loss_first_largest(void **state);

#endif
