/* The queue of requests without a reply: order, growth, and who frees what. */
#include "../../../src/session/session_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct rk_pending *push(struct rk_pending_queue *queue, int32_t id)
{
    struct rk_pending *entry = rk_pending_push(queue);
    assert_non_null(entry);
    entry->expected = id;
    return entry;
}

static int32_t pop(struct rk_pending_queue *queue)
{
    struct rk_pending *head = rk_pending_head(queue);
    assert_non_null(head);
    int32_t id = head->expected;
    rk_pending_pop(queue);
    return id;
}

static void test_empty(void **state)
{
    (void)state;
    struct rk_pending_queue queue = {0};
    assert_null(rk_pending_head(&queue));
    rk_pending_deinit(&queue);
}

static void test_one_at_a_time_needs_no_ring(void **state)
{
    (void)state;
    struct rk_pending_queue queue = {0};
    for (int32_t i = 0; i < 10; i++) {
        push(&queue, i);
        assert_int_equal(pop(&queue), i);
        assert_null(queue.more);
    }
    assert_null(rk_pending_head(&queue));
    rk_pending_deinit(&queue);
}

static void test_first_in_first_out(void **state)
{
    (void)state;
    struct rk_pending_queue queue = {0};
    for (int32_t i = 0; i < 1000; i++) {
        push(&queue, i);
    }
    assert_int_equal(queue.count, 1000);
    for (int32_t i = 0; i < 1000; i++) {
        assert_int_equal(pop(&queue), i);
    }
    assert_null(queue.more); /* an idle session is small again */
    assert_int_equal(queue.cap, 0);
}

/* Every fill level at which the ring grows, with its head at every place. */
static void test_growth_of_a_wrapped_ring(void **state)
{
    (void)state;
    for (int32_t turned = 0; turned < 20; turned++) {
        struct rk_pending_queue queue = {0};
        int32_t next_in = 0;
        int32_t next_out = 0;
        push(&queue, next_in++);
        push(&queue, next_in++);
        for (int32_t i = 0; i < turned; i++) {
            push(&queue, next_in++);
            assert_int_equal(pop(&queue), next_out++);
        }
        for (int32_t i = 0; i < 40; i++) {
            push(&queue, next_in++);
        }
        while (queue.count > 0) {
            assert_int_equal(pop(&queue), next_out++);
        }
        assert_int_equal(next_in, next_out);
    }
}

static void test_entries_start_clean(void **state)
{
    (void)state;
    struct rk_pending_queue queue = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            struct rk_pending *entry = push(&queue, i);
            assert_false(entry->local);
            assert_null(entry->reply);
            assert_null(entry->policies);
            assert_int_equal(entry->reply_len, 0);
            entry->local = true;
            entry->reply = malloc(16);
            entry->reply_len = 16;
            (void)snprintf(entry->info.name, sizeof entry->info.name, "find");
        }
        rk_pending_deinit(&queue);
    }
}

/* Answers of our own are kept in their place, and freed with their entry (AddressSanitizer). */
static void test_local_entries(void **state)
{
    (void)state;
    struct rk_pending_queue queue = {0};
    for (int32_t i = 0; i < 12; i++) {
        struct rk_pending *entry = push(&queue, i);
        if (i % 3 != 0) {
            entry->local = true;
            entry->reply = malloc(4);
            assert_non_null(entry->reply);
            memcpy(entry->reply, &i, 4);
            entry->reply_len = 4;
        }
    }
    for (int32_t i = 0; i < 8; i++) {
        const struct rk_pending *head = rk_pending_head(&queue);
        assert_int_equal(head->local, i % 3 != 0);
        if (head->local) {
            assert_memory_equal(head->reply, &i, 4);
        }
        assert_int_equal(pop(&queue), i);
    }
    rk_pending_deinit(&queue); /* four are left */
    assert_null(rk_pending_head(&queue));
    assert_null(queue.more);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_one_at_a_time_needs_no_ring),
        cmocka_unit_test(test_first_in_first_out),
        cmocka_unit_test(test_growth_of_a_wrapped_ring),
        cmocka_unit_test(test_entries_start_clean),
        cmocka_unit_test(test_local_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
