//! The misbehaving client.

use super::World;
use crate::transition::RogueAct;

impl World {
    pub(super) fn rogue_acts(&mut self, _act: &RogueAct) {}
}
