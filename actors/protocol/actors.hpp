#pragma once

#include "engine/codec/tagged.hpp"

#include <caf/atom.hpp>
#include <caf/fwd.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <string>

// All typed interfaces, one comment per message. What crosses a process travels
// as bytes in our tagged encoding (request_record.hpp, token_batch.hpp,
// routing_table.hpp, cluster_messages.hpp), so that versions can be mixed.

namespace troupe::protocol {

using attach_atom = caf::atom_constant<caf::atom("attach")>;
using generate_atom = caf::atom_constant<caf::atom("generate")>;
using cancel_atom = caf::atom_constant<caf::atom("cancel")>;
using tokens_atom = caf::atom_constant<caf::atom("tokens")>;
using drain_atom = caf::atom_constant<caf::atom("drain")>;
using load_atom = caf::atom_constant<caf::atom("load")>;
using scale_atom = caf::atom_constant<caf::atom("scale")>;
using report_atom = caf::atom_constant<caf::atom("report")>;
using register_atom = caf::atom_constant<caf::atom("register")>;
using table_atom = caf::atom_constant<caf::atom("table")>;
using watch_atom = caf::atom_constant<caf::atom("watch")>;
using assign_atom = caf::atom_constant<caf::atom("assign")>;
using death_atom = caf::atom_constant<caf::atom("death")>;
using tune_atom = caf::atom_constant<caf::atom("tune")>;
using revoke_atom = caf::atom_constant<caf::atom("revoke")>;
using delete_atom = caf::atom_constant<caf::atom("delete")>;
using config_atom = caf::atom_constant<caf::atom("config")>;
using deploy_atom = caf::atom_constant<caf::atom("deploy")>;
using status_atom = caf::atom_constant<caf::atom("status")>;
using blocks_atom = caf::atom_constant<caf::atom("blocks")>;
using nodes_atom = caf::atom_constant<caf::atom("nodes")>;
using ended_atom = caf::atom_constant<caf::atom("ended")>;
using others_atom = caf::atom_constant<caf::atom("others")>;
using meet_atom = caf::atom_constant<caf::atom("meet")>;
using tick_atom = caf::atom_constant<caf::atom("tick")>;

/// Takes the tokens of the choices it asked for.
using token_sink_actor = caf::typed_actor<
  // An encoded token_batch: one per engine step.
  caf::reacts_to<tokens_atom, codec::bytes>>;

/// One engine. Lives in a process of its own; reached over mutual TLS.
using replica_actor = caf::typed_actor<
  // A router opens a session: its incarnation, its protocol version and where
  // its tokens go. Answers the replica's incarnation and protocol version; from
  // then on each writes what the other can read. The same router attaching
  // again replaces its session; its choices of the old one are cancelled.
  caf::replies_to<attach_atom, std::uint64_t, std::uint32_t,
                  token_sink_actor>::with<std::uint64_t, std::uint32_t>,
  // Starts the choice of an encoded request_record for the router of this
  // incarnation. Refusals come back as tokens with an error.
  caf::reacts_to<generate_atom, std::uint64_t, codec::bytes>,
  // Ends a choice (router incarnation, record id).
  caf::reacts_to<cancel_atom, std::uint64_t, std::uint64_t>,
  // No new choices from now on; the process ends when the running ones are
  // done, or after so many milliseconds.
  caf::reacts_to<drain_atom, std::uint32_t>,
  // An encoded replica_spec that differs from its own in what can be changed in
  // place (protocol::same_process).
  caf::reacts_to<tune_atom, codec::bytes>>;

/// A replica as routers of version 5 see it. They connect to the interface
/// above, which is what an older one has.
using telling_replica_actor = replica_actor::extend<
  // The router of this incarnation wants to know what becomes of the blocks in
  // the prefix cache: all of them at once, then changes, in its token batches;
  // or, with false, no longer.
  caf::reacts_to<blocks_atom, std::uint64_t, bool>>;

/// Takes routing tables.
using table_sink_actor = caf::typed_actor<
  // An encoded routing_table.
  caf::reacts_to<table_atom, codec::bytes>>;

/// Takes what routers hold.
using load_sink_actor = caf::typed_actor<
  // An encoded router_report.
  caf::reacts_to<load_atom, codec::bytes>>;

/// The actor behind a router's HTTP side.
using router_actor = token_sink_actor::extend_with<table_sink_actor>
  ::extend<
  // An encoded death_notice: a replica's process ended.
  caf::reacts_to<death_atom, codec::bytes>,
  // An encoded others_load.
  caf::reacts_to<others_atom, codec::bytes>,
  // From its own process: where its load is to be told from now on.
  caf::reacts_to<watch_atom, load_sink_actor>>;

/// Starts, watches and stops the replica processes of its node, and hands what
/// the controller tells routers to the node's router.
using node_agent_actor = caf::typed_actor<
  // From a replica's process: an encoded replica_report (phase, load) and its
  // actor. Answers false to an incarnation the agent did not start: the process
  // ends itself.
  caf::replies_to<register_atom, codec::bytes, replica_actor>::with<bool>,
  // From a replica's process: a later replica_report.
  caf::reacts_to<report_atom, codec::bytes>,
  // From the controller: an encoded node_assignment.
  caf::reacts_to<assign_atom, codec::bytes>,
  // From the controller, for the node's router: an encoded routing_table.
  caf::reacts_to<table_atom, codec::bytes>,
  // From the controller, for the node's router: an encoded death_notice.
  caf::reacts_to<death_atom, codec::bytes>,
  // From the node's router: an encoded router_report, for the controller.
  caf::reacts_to<load_atom, codec::bytes>,
  // From the controller, for the node's router: an encoded others_load. Only to
  // agents of version 6 or newer.
  caf::reacts_to<others_atom, codec::bytes>,
  // From its own process: the node's router, which gets the newest table at
  // once, and the port it listens on.
  caf::reacts_to<watch_atom, router_actor, std::uint16_t>,
  // Stop all replicas and answer when none is left, at the latest after so many
  // milliseconds.
  caf::replies_to<drain_atom, std::uint32_t>::with<bool>>;

/// A node agent as the processes that it starts, and a controller of version 7,
/// see it. They connect to the interface above.
using meeting_agent_actor = node_agent_actor::extend<
  // From the controller: an encoded rank_word of another node.
  caf::reacts_to<meet_atom, codec::bytes>,
  // From one of a replica's ranks, for the others: the start's incarnation, a
  // key and a word. Once per key.
  caf::replies_to<meet_atom, std::uint64_t, std::string,
                  codec::bytes>::with<bool>,
  // The word under a key, once it is there.
  caf::replies_to<meet_atom, std::uint64_t, std::string>::with<codec::bytes>>;

/// Owns what is deployed, where it runs and the routing table.
using controller_actor = caf::typed_actor<
  // A node joins (encoded node_joined) with its agent; answers an encoded
  // node_welcome. Also the way back after a lost connection.
  caf::replies_to<register_atom, codec::bytes,
                  node_agent_actor>::with<codec::bytes>,
  // From a node agent: encoded replica_news.
  caf::reacts_to<report_atom, codec::bytes>,
  // From a node agent: an encoded death_notice.
  caf::reacts_to<death_atom, codec::bytes>,
  // Makes an encoded deployment (actors/controller/deployment.hpp) the desired
  // state. Answers its version once it is stored.
  caf::replies_to<deploy_atom, codec::bytes>::with<std::uint64_t>,
  // Takes one application (or, if empty, all) out of the desired state. Answers
  // the version; an error if there is none of that name.
  caf::replies_to<delete_atom, std::string>::with<std::uint64_t>,
  // The desired state, an encoded deployment.
  caf::replies_to<config_atom>::with<codec::bytes>,
  // The cluster's state, an encoded cluster_status.
  caf::replies_to<status_atom>::with<codec::bytes>>;

/// A controller as agents that know it to be of version 7 see it. They connect
/// to the interface above.
using meeting_controller_actor = controller_actor::extend<
  // From a node agent: an encoded rank_word.
  caf::reacts_to<meet_atom, codec::bytes>>;

/// Decides how many replicas models have (autoscaler/autoscaler.hpp). On the
/// head, beside the controller.
using autoscaler_actor = load_sink_actor::extend<
    // Encoded scaled_models (actors/controller/scaling.hpp): all that is to be
    // scaled; in place of those before.
    caf::reacts_to<table_atom, codec::bytes>,
    // An encoded replica_load_news.
    caf::reacts_to<report_atom, codec::bytes>,
    // An encoded nodes_view, if it asked for them.
    caf::reacts_to<nodes_atom, codec::bytes>,
    // From the node provider: the node of this name is gone, or never came, and
    // why; no reason = it was told to end.
    caf::reacts_to<ended_atom, std::string, std::string>>;

/// The controller as its own process sees it. Agents ask for the interface
/// above and no more, so that one of version 2 is good enough for them; one of
/// version 5 or newer also takes their routers' load.
using head_controller_actor = controller_actor::extend_with<load_sink_actor>
  ::extend<
    // From a node agent: an encoded rank_word, for other nodes.
    caf::reacts_to<meet_atom, codec::bytes>,
    // The autoscaler, which is told what there is to scale.
    caf::reacts_to<watch_atom, autoscaler_actor>,
    // From the autoscaler: an encoded scale_order.
    caf::reacts_to<scale_atom, codec::bytes>,
    // From a scaler outside: application, model, replicas. Answers the number;
    // an error if it may not say so.
    caf::replies_to<scale_atom, std::string, std::string,
                    std::uint32_t>::with<std::uint32_t>,
    // From the autoscaler, which brings nodes: tells it of nodes from now on.
    // Answers encoded asked_nodes: those that the store has.
    caf::replies_to<nodes_atom>::with<codec::bytes>,
    // From the autoscaler: encoded asked_nodes, in place of those before.
    // Answers once they are stored.
    caf::replies_to<nodes_atom, codec::bytes>::with<bool>,
    // From the autoscaler: nothing is to be placed on this node any more, or,
    // with false, things may be again. Answers false, and does nothing, if a
    // replica is there.
    caf::replies_to<drain_atom, std::string, bool>::with<bool>,
    // From the autoscaler: an encoded fleet_status, to be shown.
    caf::reacts_to<status_atom, codec::bytes>,
    // Revokes the certificates of the node of this name. Answers, once that is
    // on disk and in force on the head, how the node was: "alive", "lost" (not
    // long ago) or "unknown".
    caf::replies_to<revoke_atom, std::string>::with<std::string>>;

} // namespace troupe::protocol

CAF_BEGIN_TYPE_ID_BLOCK(troupe, first_custom_type_id)
  CAF_ADD_TYPE_ID(troupe, (troupe::codec::bytes))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::token_sink_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::table_sink_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::replica_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::node_agent_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::controller_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::router_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::load_sink_actor))
  CAF_ADD_TYPE_ID(troupe, (troupe::protocol::autoscaler_actor))
CAF_END_TYPE_ID_BLOCK(troupe)
