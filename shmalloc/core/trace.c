/* SPDX-License-Identifier: MIT */
/*
 * Tracepoints: names.
 */
#include "core.h"

#define TRACE_EVENT(group, name, fields) #group ":" #name,
static const char *const event_names[] = {
#include "trace.def"
};
#undef TRACE_EVENT

#define TRACE_EVENT(group, name, fields) fields,
static const char *const event_fields[] = {
#include "trace.def"
};
#undef TRACE_EVENT

__export const char *shm_trace_name(unsigned int event)
{
	return event < ARRAY_SIZE(event_names) ? event_names[event] : NULL;
}

__export const char *shm_trace_fields(unsigned int event)
{
	return event < ARRAY_SIZE(event_fields) ? event_fields[event] : NULL;
}

#define IRQ_WORK(name) #name,
static const char *const work_names[] = {
#include "irq_work.def"
};
#undef IRQ_WORK

__export const char *shm_irq_work_name(unsigned int func)
{
	return func < ARRAY_SIZE(work_names) ? work_names[func] : NULL;
}
