/* Every kernel against a plain reference: on a GPU, or emulated on a CPU, whichever this program is
 * linked with. */
#include "kernels/cases.h"
#include "kernels/rig.h"
#include "suite.h"

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(flat_has_the_bits_of_cpus),
        TEST(flat_sgd_has_the_bits_of_cpus),
        TEST(flat_adam_has_the_bits_of_cpus),
        TEST(flat_sum_of_squares),
        TEST(flat_refuses_momentum_without_velocity),
        TEST(late_mean_squares_has_the_bits_of_cpus),
        TEST(late_gap_has_the_bits_of_cpus),
        TEST(late_look_back_has_the_bits_of_cpus),
        TEST(move_transposes),
        TEST(move_converts),
        TEST(move_rounds_to_bf16),
        TEST(move_copies_channels),
        TEST(elementwise_relu),
        TEST(elementwise_gelu),
        TEST(elementwise_sums),
        TEST(elementwise_philox_is_the_host_s),
        TEST(elementwise_dropout_has_the_mask_of_cpus),
        TEST(pool_max),
        TEST(pool_max_of_nans),
        TEST(pool_avg),
        TEST(pool_refuses_windows),
        TEST(pool_global),
        TEST(norm_bias),
        TEST(norm_train),
        TEST(norm_far_from_zero),
        TEST(norm_eval),
        TEST(norm_fused_is_the_three_ops),
        TEST(norm_back),
        TEST(loss_cross_entropy),
        TEST(loss_mean_square),
        TEST(loss_first_largest),
    };
    return cmocka_run_group_tests_name("kernels", tests, NULL, NULL);
}
