/*
 * The body of a message: one BSON document.
 *
 *   { v: int32 1, kind: "range",     jobId: ObjectId, jobStatusId: ObjectId,
 *     collectionName: "db.coll", isMeta: bool, retries: int32 }
 *   { v: int32 1, kind: "documents", collectionName, documentIds: [...], retries: int32 }
 *   { v: int32 1, kind: "plan",      jobId, isMeta: true }
 *   { v: int32 1, kind: "place" }
 *
 * range: a range of jobStatus is to be swept; isMeta: it is the last of a batch that was cut.
 * documents: an application read these under an old key. plan: the next ranges of a job are to be
 * cut. place: nothing is to be done; who gets it holds the planner's place. retries: how often
 * somebody has put it off.
 *
 * BSON and not JSON, since an _id is a BSON value. Of a document nothing travels but its _id.
 */
#ifndef REKEY_AMQP_MESSAGE_H
#define REKEY_AMQP_MESSAGE_H

#include <bson/bson.h>
#include <rekey/base/buf.h>
#include <rekey/bson/walk.h>

#define RK_AMQP_BODY_MAX (1u << 20) /* more than a hint's ids and all other keys */

enum rk_amqp_kind { RK_AMQP_RANGE, RK_AMQP_DOCUMENTS, RK_AMQP_PLAN, RK_AMQP_PLACE };
#define RK_AMQP_KINDS 4u

struct rk_amqp_message {
    enum rk_amqp_kind kind;
    bson_oid_t job;
    bson_oid_t range;
    char ns[320];
    bool is_meta;
    uint32_t retries;
    struct rk_bson_view ids; /* borrowed: an array */
};

const char *rk_amqp_kind_name(enum rk_amqp_kind kind);

RK_MUST_CHECK enum rk_status rk_amqp_message_put(struct rk_buf *out,
                                                 const struct rk_amqp_message *message);

/* RK_EINVAL unless the body is exactly such a document, each key there once and none besides; *why
 * then says what is wrong with it, without anything of its content. */
RK_MUST_CHECK enum rk_status rk_amqp_message_read(const uint8_t *body, size_t len,
                                                  struct rk_amqp_message *message,
                                                  const char **why);

#endif
