/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session with the daemon: connect and HELLO, what is served, reset, the end. */
#ifndef VIOMMU_SESSION_H
#define VIOMMU_SESSION_H

#include "viommu-core.h"

/** Sets up the fields that need no connection. From instance_init. */
void viommu_session_init(ViommuCore *core, DeviceState *dev);
/**
 * Describes the properties that every device has: socket, name, timeout-ms, walks,
 * queues.
 */
void viommu_session_describe_properties(ObjectClass *klass);
/**
 * Connects, says HELLO with the given options, starts serving. False with errp set and
 * everything undone.
 */
bool viommu_session_connect(ViommuCore *core, const viommu_Hello_OptionsEntry *options,
                            unsigned count, Error **errp);
/** Machine reset: the model as at power-on, nothing cached, nothing mapped. Big lock. */
void viommu_session_reset(ViommuCore *core);

#endif
