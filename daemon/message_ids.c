/* SPDX-License-Identifier: MIT */
#include "daemon/message_ids.h"

#include <string.h>

static const struct message_id ids[] = {
	{ "spiking-thread", "5cff0a80904b40b08f4392d8b118f4b2" },
	{ "deadlock", "b21ee44185784835ba5b55e799c1df2e" },
	{ "self-deadlock", "b57470c8823b439a921416645f26f4d0" },
	{ "orphaned-lock", "8f5714d2ec704c1d8d1768470cbb8baf" },
	{ "hang", "823afe5e49be44e28477a0de97db8cda" },
	{ "livelock", "6d190819accc4776bc605737e4c29931" },
	{ "gil-hog", "f78c086004aa40ed9ebc95cac6dcbb5a" },
	{ "event-loop-blocked", "202508e4b03147ca8b541b2980126095" },
	{ "stopped", "3f5585f0ba0a411d8213d4f4c989c0ec" },
	{ "d-state", "13684133f93f4dfda162c096f1faae1f" },
	{ "memory-leak", "febf75b60755487ebed253ec2d5b9ae7" },
	{ "handle-leak", "4e22c729a86049048a765808feae709a" },
	{ "thread-leak", "5482950c717947dcad34f08e32a9f12b" },
	{ "process-leak", "cff25795a48c4fadb9f98c693f557eb0" },
	{ "gc-pressure", "bedaf53025274f958a2bc0a085daecdb" },
	{ "exception-storm", "7c4c8d1a14494161b5d2e447ccf2ee3b" },
	{ "cpu-throttled", "298e05465c14481fa9d43d84298069c7" },
	{ "oom-risk", "0f8a72bef41c4bc18492e7fec801913f" },
	{ "crash", "837c79b089e3403f9c3e14ff1d4fbc3d" },
	{ MESSAGE_ID_NOTE, "4671f7148ee24a8f91c5d1b0460a12b9" },
	{ MESSAGE_ID_OTHER, "cfea058ac7864155adc34a6983adf122" },
};

#define IDS_N (sizeof(ids) / sizeof(ids[0]))

const struct message_id *message_ids(size_t *ret_n) {
	*ret_n = IDS_N;
	return ids;
}

const char *message_id_of(const char *kind) {
	for (size_t i = 0; i < IDS_N; i++)
		if (!strcmp(ids[i].kind, kind))
			return ids[i].id;
	return ids[IDS_N - 1].id;
}
