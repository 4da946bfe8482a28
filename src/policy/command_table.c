/*
 * The commands that Rekey knows, sorted by name. One that is not here is refused where its first
 * value names a protected collection, and passed otherwise.
 */
#include "command_internal.h"

#include <stdlib.h>

#define READ RK_CLASS_READ
#define WRITE RK_CLASS_WRITE
#define OTHER RK_CLASS_OTHER

static const struct rk_command_spec commands[] = {
    {"$eval", WRITE, RK_KIND_CROSS, NULL, rk_check_around},
    {"abortTransaction", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"aggregate", READ, RK_KIND_CROSS, rk_fields_aggregate, rk_check_query_command},
    {"applyOps", WRITE, RK_KIND_CROSS, NULL, rk_check_around},
    {"authenticate", OTHER, RK_KIND_SESSION, NULL, rk_check_x509},
    {"buildInfo", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"buildinfo", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"bulkWrite", WRITE, RK_KIND_CROSS, rk_fields_bulk_write, rk_check_bulk_write},
    {"cloneCollectionAsCapped", OTHER, RK_KIND_DATABASE, NULL, rk_check_clone_capped},
    {"collMod", OTHER, RK_KIND_DATABASE, NULL, rk_check_create},
    {"collStats", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"collstats", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"commitTransaction", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"compact", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"connectionStatus", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"convertToCapped", OTHER, RK_KIND_REFUSE, NULL, NULL},
    {"copydb", WRITE, RK_KIND_CROSS, NULL, rk_check_around},
    {"count", READ, RK_KIND_REWRITE, rk_fields_count, rk_check_query_command},
    {"create", OTHER, RK_KIND_DATABASE, NULL, rk_check_create},
    {"createIndexes", OTHER, RK_KIND_REWRITE, rk_fields_create_indexes, NULL},
    {"createRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"createUser", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dataSize", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dbHash", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dbStats", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dbstats", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"delete", WRITE, RK_KIND_REWRITE, rk_fields_delete, NULL},
    {"deleteIndexes", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"distinct", READ, RK_KIND_REWRITE, rk_fields_distinct, rk_check_query_command},
    {"doTxn", WRITE, RK_KIND_CROSS, NULL, rk_check_around},
    {"drop", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"dropDatabase", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dropIndexes", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"dropRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"dropUser", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"endSessions", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"eval", WRITE, RK_KIND_CROSS, NULL, rk_check_around},
    {"explain", READ, RK_KIND_CROSS, NULL, NULL},
    {"find", READ, RK_KIND_REWRITE, rk_fields_find, rk_check_query_command},
    {"findAndModify", WRITE, RK_KIND_REWRITE, rk_fields_find_and_modify, rk_check_query_command},
    {"findandmodify", WRITE, RK_KIND_REWRITE, rk_fields_find_and_modify, rk_check_query_command},
    {"getLog", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"getMore", READ, RK_KIND_PLAIN, NULL, NULL},
    {"getParameter", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"getnonce", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"grantPrivilegesToRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"grantRolesToRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"grantRolesToUser", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"hello", OTHER, RK_KIND_HELLO, NULL, rk_check_x509},
    {"insert", WRITE, RK_KIND_REWRITE, rk_fields_insert, NULL},
    {"internalRenameIfOptionsAndIndexesMatch", WRITE, RK_KIND_CROSS, NULL, rk_check_rename},
    {"isMaster", OTHER, RK_KIND_HELLO, NULL, rk_check_x509},
    {"ismaster", OTHER, RK_KIND_HELLO, NULL, rk_check_x509},
    {"killCursors", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"killSessions", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"listCollections", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"listIndexes", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"logout", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"mapReduce", READ, RK_KIND_CROSS, NULL, rk_check_map_reduce},
    {"mapreduce", READ, RK_KIND_CROSS, NULL, rk_check_map_reduce},
    {"ping", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"planCacheClear", OTHER, RK_KIND_REWRITE, rk_fields_count, rk_check_query_command},
    {"planCacheClearFilters", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"planCacheListFilters", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"profile", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"reIndex", OTHER, RK_KIND_PLAIN, NULL, NULL},
    {"refreshSessions", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"renameCollection", OTHER, RK_KIND_CROSS, NULL, rk_check_rename},
    {"revokePrivilegesFromRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"revokeRolesFromRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"revokeRolesFromUser", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"rolesInfo", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"saslContinue", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"saslStart", OTHER, RK_KIND_SESSION, NULL, rk_check_x509},
    {"setQuerySettings", OTHER, RK_KIND_CROSS, NULL, rk_check_around},
    {"shardCollection", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"startSession", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"update", WRITE, RK_KIND_REWRITE, rk_fields_update, NULL},
    {"updateRole", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"updateUser", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"usersInfo", OTHER, RK_KIND_SESSION, NULL, NULL},
    {"validate", OTHER, RK_KIND_PLAIN, NULL, NULL},
};

struct name {
    const char *at;
    size_t len;
};

static int compare(const void *key, const void *member)
{
    const struct name *name = key;
    const struct rk_command_spec *spec = member;
    int order = strncmp(name->at, spec->name, name->len);
    return order != 0 ? order : -(spec->name[name->len] != '\0');
}

const struct rk_command_spec *rk_command_spec_find(const char *name, size_t len)
{
    const struct name key = {name, len};
    return bsearch(&key, commands, sizeof commands / sizeof commands[0], sizeof commands[0],
                   compare);
}
