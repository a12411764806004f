"""What group pruning is compared with: masks, and ReDo; a trainer takes any of them by one flag."""
