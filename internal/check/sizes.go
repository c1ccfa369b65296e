package check

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
)

// inspectSizes reports limits that contradict each other, or that exceed the memory or the file descriptors of this host.
func inspectSizes(c *app.HubConfig, report finding.Report) {
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	payload, queue, total := int64(c.MaxPayload.T), int64(c.QueueBytes.T), int64(c.QueueTotalBytes.T)
	if payload > queue {
		report.Warn("config-queue", "set --queue-bytes to "+size(2*payload)+" or more", "a message of --max-payload (%s) does not fit into --queue-bytes (%s) and may close the streams that receive it", size(payload), size(queue))
	}
	if queue > total {
		report.Warn("config-queue", "set --queue-total-bytes above --queue-bytes", "--queue-bytes (%s) exceeds --queue-total-bytes (%s), which is for all streams together", size(queue), size(total))
	}
	streams, _ := app.DescriptorBudget()
	wanted := c.MaxClients.T
	switch {
	case wanted > streams && streams > 0:
		report.Warn("config-descriptors", fmt.Sprintf("raise the limit: ulimit -n %[1]d, LimitNOFILE=%[1]d in systemd, or ulimits: nofile: %[1]d in compose", int64(wanted-streams)+int64(app.DescriptorLimit())), "--max-clients is %d, but the limit of %d file descriptors on this host is enough for only %d streams", wanted, app.DescriptorLimit(), streams)
	case wanted == flags.Auto && streams > 0:
		report.OK("config-descriptors", "room for %d streams: the file descriptor limit is %d", streams, app.DescriptorLimit())
		wanted = streams
	}
	limit := memoryLimit()
	if limit == 0 {
		return
	}
	idle, full := c.MemoryBound(0), c.MemoryBound(max(wanted, 0))
	do := "reduce --queue-total-bytes plus --history-bytes to a third of the memory, or add memory"
	switch {
	case idle > limit:
		report.Warn("config-memory", do, "with slow consumers, the hub may use %s of memory, but only %s are available", size(idle), size(limit))
	case full > limit:
		report.Note("config-memory", do+", or reduce --max-clients", "the hub may use %s of memory with %d streams and slow consumers, but only %s are available", size(full), wanted, size(limit))
	}
}

// memoryLimit returns how much memory is available to the process: the limit of its control group or the memory of the
// host, whichever is lower. It returns 0 if neither is known.
func memoryLimit() int64 {
	var limit int64
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" means no limit
			limit = n
		}
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil && (limit == 0 || kib<<10 < limit) {
				limit = kib << 10
			}
		}
	}
	return limit
}
